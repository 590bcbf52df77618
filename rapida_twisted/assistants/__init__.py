"""Who answers: the assistants that ship, and how they are found by name."""
