"""The import surfaces of other packages, each in a module of its own, over this package's engine.

Here, and only here, a thing may have a second name. What such a name can't do here is refused in words;
what it does differently is said in a warning.
"""
