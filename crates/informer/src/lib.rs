//! Shared informers, workqueue, expectations, events, leader election
