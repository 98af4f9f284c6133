//! The service proxy: services and endpoint slices to nftables
