"""Exact, faster forms of what a transformer computes: no kernel here changes what is learnt."""
