"""Where it runs: devices, clusters, connections, the stream of tasks and its progress; nothing
of cryo-EM."""
