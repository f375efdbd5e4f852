"""What all pages for people share: frame, headers, languages; how forms and cookies are read."""
