"""The server's end of end-to-end protection: its keys, whom it trusts, what it says and hears."""
