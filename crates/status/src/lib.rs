//! The read model: tasks, live streams, results and dead letters.
