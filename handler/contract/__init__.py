"""What comes in and goes out: a body to jobs or problems, outcomes to an answer, settings. No torch."""
