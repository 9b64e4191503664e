"""The page: what a plant's people see in their browser; needs the extra ``web``."""
