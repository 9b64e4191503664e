"""What writes the pages of the reference from the code: a module a page, each with a function that gives its text."""
