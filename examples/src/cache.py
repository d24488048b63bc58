"""A cache whose entries grow old."""

import time


class Cache:
    def __init__(self, seconds):
        self.seconds = seconds
        self.entries = {}

    def get(self, key):
        """The value, or None when it was never there or is too old."""
        value, at = self.entries.get(key, (None, 0))
        return value if time.time() - at < self.seconds else None

    def put(self, key, value):
        self.entries[key] = value, time.time()

    def evict_stale(self):
        """Throw away what nobody may read any more."""
        now = time.time()
        self.entries = {key: (v, at) for key, (v, at) in self.entries.items() if now - at < self.seconds}
