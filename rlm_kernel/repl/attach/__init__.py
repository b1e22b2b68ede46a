"""``repl="attach:..."``: a kernel that someone has open, which is interrupted at most, never ended."""
