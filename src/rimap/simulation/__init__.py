"""Data from brain anatomies (§4.2): tissues, anatomies, whole subjects, training patches."""
