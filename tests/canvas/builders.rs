//! What our builders make of a canvas is what Celery's make of it.
