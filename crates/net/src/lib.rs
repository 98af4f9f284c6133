//! Netlink, addresses, routes, IPAM and the nftables encoder
