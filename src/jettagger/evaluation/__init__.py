"""From predictions to figures of merit with errors."""
