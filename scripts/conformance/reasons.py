"""Why some files are not run, and why some tests fail with every worker that is not in the process of the tests."""

IN_PROCESS = "it starts workers in its own process, whose app and tasks are not to be imported elsewhere"

#: Files.
NOT_RUN = {
    "test_backend.py": "it is about Azure's storage, and wants an account there",
    "test_mem_leak_in_exception_handling.py": "all of its tasks are eager: no worker is involved",
    "test_prefork_shutdown.py": "it stops the worker through the state of a module in its own process",
    "test_native_delayed_delivery_binding.py": IN_PROCESS,
    "test_quorum_queue_qos_cluster_simulation.py": IN_PROCESS,
    "test_rabbitmq_chord_unlock_routing.py": IN_PROCESS,
    "test_rabbitmq_default_queue_type_fallback.py": IN_PROCESS,
    "test_rabbitmq_quorum_queue_cycle_detection.py": IN_PROCESS,
    "test_django_settings.py": "it holds settings, and no test",
    "test_serialization_config.py": "it holds settings, and no test",
    "test_worker_config.py": "it holds settings, and no test",
}

SIGNAL = "it hears the worker's signal task_received in the process of the tests"

#: Parts of the names of tests.
BOTH_FAIL = {
    "test_trace_log_arguments": "it reads the worker's log in the process of the tests",
    "test_Inspect::test_stats": "it asks that the worker has the process id of the tests",
    "test_task_replacement": SIGNAL,
    "test_task_received_has_access_to_stamps": SIGNAL,
    "linking_stamped_sig": SIGNAL,
}
