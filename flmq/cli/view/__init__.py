"""How commands show a run: live in a terminal, as lines of text, as a picture."""
