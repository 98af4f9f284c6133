//! UDP flows that lead to endpoints which are gone.

use crate::plan::Udp;
use net::netlink::Socket;

/// Which addresses must be looked at: those that lost an endpoint, or had none before.
pub(crate) fn changed(old: &[Udp], new: &[Udp], made: bool) -> Vec<Udp> {
    let mut stale = Vec::new();
    for before in old {
        match new.iter().find(|now| (now.ip, now.port) == (before.ip, before.port)) {
            None => stale.push(Udp { endpoints: Vec::new(), ..before.clone() }),
            Some(now) => {
                let lost = before.endpoints.iter().any(|endpoint| !now.endpoints.contains(endpoint));
                if lost || (before.endpoints.is_empty() && !now.endpoints.is_empty()) {
                    stale.push(now.clone());
                }
            }
        }
    }
    let known = |now: &Udp| old.iter().any(|before| (now.ip, now.port) == (before.ip, before.port));
    // A new service, or a proxy that starts and does not know what was before.
    stale.extend(new.iter().filter(|now| !known(now) && (!made || !now.endpoints.is_empty())).cloned());
    stale
}

/// Deletes flows to these addresses that lead elsewhere than to their endpoints.
pub(crate) fn forget(socket: &mut Socket, stale: &[Udp]) {
    if stale.is_empty() {
        return;
    }
    let deleted = net::conntrack::delete(socket, |flow| {
        flow.protocol == 17
            && stale.iter().any(|udp| {
                let here = match udp.ip {
                    Some(ip) => flow.destination == ip,
                    // A flow to the same port of another machine is not translated.
                    None => flow.answers != flow.destination,
                };
                here && flow.port == udp.port && !udp.endpoints.contains(&(flow.answers, flow.answer_port))
            })
    });
    match deleted {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "forgot UDP flows to endpoints that are gone"),
        Err(error) => tracing::warn!(%error, "cannot forget UDP flows to endpoints that are gone"),
    }
}
