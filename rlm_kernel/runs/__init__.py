"""One run at one depth: its turns, its REPL's calls, its answer, and who steers it."""
