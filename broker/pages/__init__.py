"""What all pages for people share: frame and headers, languages, how forms and cookies are read."""
