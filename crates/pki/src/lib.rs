//! Certificate authority, certificates and service account tokens
