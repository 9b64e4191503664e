"""What each address answers, a module for each subject."""
