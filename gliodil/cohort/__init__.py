"""Many patients: what to plan, checked first; one task each; what all of them say together."""
