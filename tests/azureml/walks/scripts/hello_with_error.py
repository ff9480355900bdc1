raise ValueError("no such thing")
