"""Teams, apps, keys, provider keys: who may call, and on whose account."""
