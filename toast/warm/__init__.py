"""The warm process: a cache of loaded models that runs commands for their callers, with the same result as here."""
