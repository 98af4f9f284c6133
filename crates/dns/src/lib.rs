//! Cluster DNS: a responder fed by informers
