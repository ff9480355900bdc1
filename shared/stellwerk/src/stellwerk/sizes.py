"""Sizes in bytes for people."""


def size_text(size: float) -> str:
    """``512 B``, ``9.3 MB``: decimal, as options take sizes and documents name limits."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if round(size, 1) < 1000:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
