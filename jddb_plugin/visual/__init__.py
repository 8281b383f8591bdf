"""Pictures for people: comparisons and figures."""
