"""What the runner, the tests and the workers hand on to each other in the environment."""

#: How a worker is called, and the folder for its log.
COMMAND = "CONFORMANCE_COMMAND"
FOLDER = "CONFORMANCE_FOLDER"
#: Where a line about each test goes: the number of an open file.
LINE = "CONFORMANCE_LINE"
#: Seconds that a test may take.
LIMIT = "CONFORMANCE_LIMIT"

#: A worker's settings, the modules with its tasks, and tasks that are classes.
SETTINGS = "CONFORMANCE_SETTINGS"
INCLUDES = "CONFORMANCE_INCLUDES"
CLASSES = "CONFORMANCE_CLASSES"
