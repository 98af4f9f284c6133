//! Local clusters: nodes in namespaces, kubeconfig contexts, lifecycle
