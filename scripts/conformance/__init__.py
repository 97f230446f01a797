"""`make conformance`: Celery's own integration tests, run against this worker and against the stock one."""
