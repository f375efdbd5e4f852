"""What all pages for people share: their frame and headers, their languages, how forms and cookies are read."""
