//! The table that keeps a machine from routing between its networks. One for all daemons of the
//! machine, as the kernel's switch is.

use super::{
    super::error::NetworkError,
    expr::{Rule, family_of},
    message::{Attributes, Batch, Kind},
    table::{HOOK_POSTROUTING, POLICY_ACCEPT, name, refused, replace},
};
use std::net::IpAddr;

/// Its name.
const TABLE: &str = "midge_forward";

/// The chain of links that packets leave by.
const LEAVING: &str = "leaving";

/// After everything that rewrites.
const PRIORITY_LAST: i32 = 300;

/// Drops what goes from one of the links to another and that nobody rewrote, of the version of
/// `like`. Kernels before 5.7 do not say where a packet came from when it leaves, and drop nothing.
pub(in super::super) fn close_between(links: &[String], like: IpAddr) -> Result<(), NetworkError> {
    batch(links, like).commit().map_err(refused)
}

fn batch(links: &[String], like: IpAddr) -> Batch {
    let mut batch = Batch::new(family_of(like));
    replace(&mut batch, TABLE);
    batch.push(Kind::NewTable, name(TABLE), "its table");
    batch.push(Kind::NewChain, name(TABLE).text(3, LEAVING), "its chain of links");
    let hook =
        Attributes::default().number(1, HOOK_POSTROUTING).bytes(2, &PRIORITY_LAST.to_be_bytes());
    let chain = name(TABLE)
        .text(3, "postrouting")
        .nested(4, &hook)
        .number(5, POLICY_ACCEPT)
        .text(7, "filter");
    batch.push(Kind::NewChain, chain, "its postrouting chain");
    // Some of what the node itself sends bears the link that it leaves by as the one it came by.
    let own = Rule::default().sent_by_this_node(like.is_ipv6()).accept();
    push_rule(&mut batch, "postrouting", &own);
    for link in links {
        let leaves = Rule::default().leaves_by(link).was_not_rewritten().drop();
        push_rule(&mut batch, LEAVING, &leaves);
        push_rule(&mut batch, "postrouting", &Rule::default().came_by(link).jump(LEAVING));
    }
    batch
}

fn push_rule(batch: &mut Batch, chain: &str, rule: &Rule) {
    let body = name(TABLE).text(2, chain).nested(4, rule.attributes());
    batch.push(Kind::NewRule, body, format!("a rule of its {chain} chain{}", rule.needs()));
}

#[cfg(test)]
mod tests {
    use super::{super::super::forwarding::LINKS_MAX, *};

    #[test]
    fn all_links_fit_the_send_buffer() {
        /// The kernel's default of `net.core.wmem_max`.
        const SEND_BUFFER: usize = 212_992;
        let links = vec!["a-link-of-15-by".to_owned(); LINKS_MAX];
        let len = batch(&links, std::net::Ipv4Addr::UNSPECIFIED.into()).encode().len();
        assert!(len < SEND_BUFFER, "{len}");
    }
}
