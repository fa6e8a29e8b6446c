"""Recipes: what to train, in which stages, towards which artifact (needs the extra ``train``)."""
