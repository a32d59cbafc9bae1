"""The chat as a page for the browser: a small server, and the page itself in page/."""
