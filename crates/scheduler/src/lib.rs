//! The scheduler: framework, plugins, queue and binding
