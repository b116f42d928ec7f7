//! Who is asking: a bearer token on TCP, the peer's user on the control
//! socket, a ticket on a browser's stream. What does not live here: what they
//! may do (that is the table in `access`).

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::unistd::{Gid, Group, Uid, User};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use uuid::Uuid;

use super::access::Scope;
use super::problem::Problem;
use super::roles::Operator;
use super::state::Shared;
use crate::store::tokens::TokenRow;

/// Members of this group administer the gateway.
pub const ADMIN_GROUP: &str = "baygate-admin";
/// What every token begins with, so that scanners find lost ones.
pub(super) const TOKEN_PREFIX: &str = "bg_";
/// What the token of a session begins with: another word when it is over.
pub(super) const SESSION_PREFIX: &str = "bgs_";
/// Random bytes of a token (contract §7: 256 bit).
const TOKEN_BYTES: usize = 32;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over TCP.
    Tcp {
        /// Its address.
        remote: SocketAddr,
        /// Ours, as it reached us.
        local: SocketAddr,
    },
    /// Over the control socket.
    Control {
        /// Its user.
        uid: u32,
        /// Whether that user administers the gateway.
        admin: bool,
    },
}

impl Peer {
    /// Whether it sits on this machine.
    #[must_use]
    pub fn is_here(self) -> bool {
        match self {
            Self::Tcp { remote, .. } => remote.ip().to_canonical().is_loopback(),
            Self::Control { .. } => true,
        }
    }

    /// Whom attempts are counted against.
    #[must_use]
    pub fn source(self) -> Option<IpAddr> {
        match self {
            Self::Tcp { remote, .. } => Some(remote.ip().to_canonical()),
            Self::Control { .. } => None,
        }
    }
}

/// The caller, once known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A user at the control socket: everything.
    Control,
    /// A token, or a ticket made with it.
    Token {
        /// Its id.
        id: Uuid,
        /// What it may do.
        scopes: Vec<Scope>,
        /// Its hash, to see whether it still lives.
        sha256: [u8; 32],
        /// The till it was paired to: somebody stands there. A script's token has none.
        till: Option<String>,
        /// Who is logged in at that till, and the hash of the session's token.
        session: Option<(Operator, [u8; 32])>,
    },
}

impl Principal {
    /// Whether it has one of the scopes.
    #[must_use]
    pub fn may_one_of(&self, wanted: &[Scope]) -> bool {
        match self {
            Self::Control => true,
            Self::Token { scopes, .. } => wanted.iter().any(|scope| scopes.contains(scope)),
        }
    }

    /// Where a person speaks through it: a till, or a user at the control socket. A token
    /// made for a script speaks for no person.
    #[must_use]
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Control => Some("control"),
            Self::Token { till, .. } => till.as_deref(),
        }
    }

    /// The till it speaks for.
    #[must_use]
    pub fn till(&self) -> Option<&str> {
        match self {
            Self::Control => None,
            Self::Token { till, .. } => till.as_deref(),
        }
    }

    /// Who is logged in.
    #[must_use]
    pub fn operator(&self) -> Option<&Operator> {
        match self {
            Self::Token { session: Some((operator, _)), .. } => Some(operator),
            _ => None,
        }
    }

    /// What the record names as the place of a deed: the till, `control`, or a script's token.
    #[must_use]
    pub fn place(&self) -> String {
        self.till().map_or_else(|| self.key_scope(), str::to_owned)
    }

    /// Whose idempotency keys its requests carry: of a session, the till's, so that a key goes on
    /// when another person logs in.
    #[must_use]
    pub fn key_scope(&self) -> String {
        match self {
            Self::Control => "control".into(),
            Self::Token { id, .. } => id.to_string(),
        }
    }

    /// Whether it would still be let in.
    pub(super) async fn still_lives(&self, shared: &Shared) -> bool {
        match self {
            Self::Control => true,
            Self::Token { sha256, session, .. } => {
                if let Some((_, session)) = session
                    && !shared.sessions.lives(session, shared.context.limits.session, Instant::now())
                {
                    return false;
                }
                let sha256 = *sha256;
                let found = shared.context.store.read(move |r| r.token_by_hash(&sha256)).await;
                // A database that cannot be read just now is no reason to cut a till off.
                found.map_or(true, |row| row.is_some())
            }
        }
    }
}

/// A fresh secret and its hash. Only the hash is kept.
///
/// # Errors
/// When the kernel gives no random bytes.
pub(super) fn mint(prefix: &str) -> Result<(String, [u8; 32]), Problem> {
    let mut bytes = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| no_randomness(&error))?;
    let token = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes));
    let sha256 = hash(&token);
    Ok((token, sha256))
}

pub(super) fn no_randomness(error: &getrandom::Error) -> Problem {
    tracing::error!(%error, "no random bytes");
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "no-randomness",
        "系统无法提供随机数，请重启设备",
        "the system gives no random numbers; restart the box",
    )
}

/// What is stored of a secret.
pub(super) fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// The caller behind a request, by its connection or its bearer token.
pub(super) async fn of(
    shared: &Shared,
    peer: Option<Peer>,
    headers: &HeaderMap,
) -> Result<Principal, Problem> {
    if let Some(Peer::Control { admin, uid }) = peer {
        return if admin { Ok(Principal::Control) } else { Err(not_an_admin(uid)) };
    }
    let Some(token) = bearer(headers) else { return Err(no_token()) };
    let sha256 = hash(token);
    if token.starts_with(SESSION_PREFIX) {
        return in_session(shared, sha256).await;
    }
    let row = shared.context.store.read(move |r| r.token_by_hash(&sha256)).await?.ok_or_else(no_token)?;
    let scopes = scopes_of(&row);
    Ok(Principal::Token { id: row.id, scopes, sha256, till: row.till, session: None })
}

/// The person behind a session's token: what both the till's token and the role allow now.
async fn in_session(shared: &Shared, session: [u8; 32]) -> Result<Principal, Problem> {
    let found = shared.sessions.touch(&session, shared.context.limits.session, Instant::now());
    let found = found.ok_or_else(session_over)?;
    let (sha256, id) = (found.token, found.operator.clone());
    let (token, operator) =
        shared.context.store.read(move |r| Ok((r.token_by_hash(&sha256)?, r.operator(id.as_str())?))).await?;
    let operator = operator
        .filter(|(row, _)| !row.locked)
        .and_then(|(row, _)| row.role.parse().ok().map(|role| Operator { id: row.id, name: row.name, role }));
    let (Some(token), Some(operator)) = (token, operator) else {
        shared.sessions.end(&session);
        return Err(session_over());
    };
    let scopes = operator.role.within(&scopes_of(&token));
    if scopes.is_empty() {
        // Another role meanwhile, that may do nothing here: not even log out.
        shared.sessions.end(&session);
        return Err(session_over());
    }
    let session = Some((operator, session));
    Ok(Principal::Token { id: token.id, scopes, sha256, till: token.till, session })
}

fn scopes_of(row: &TokenRow) -> Vec<Scope> {
    row.scopes.iter().filter_map(|scope| scope.parse().ok()).collect()
}

fn session_over() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "session-over",
        "登录已失效（退出、闲置过久、账号被锁定或收银台令牌被收回），请重新登录",
        "the session is over (logged out, idle for too long, operator locked, or the till's token taken back); log in again",
    )
}

/// The holder of the ticket in an address; `None` when there is no ticket.
pub(super) fn by_ticket(shared: &Shared, uri: &Uri) -> Result<Option<Principal>, Problem> {
    let query = uri.query().unwrap_or("");
    let ticket = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "ticket");
    let Some((_, ticket)) = ticket else { return Ok(None) };
    let holder = shared.tickets.take(&hash(&ticket), Instant::now());
    holder.map(Some).ok_or_else(|| {
        Problem::new(
            StatusCode::UNAUTHORIZED,
            "ticket-invalid",
            "票据无效、已使用或已过期（30 秒）；请用 POST /v1/events/tickets 重新取得",
            "the ticket is unknown, used or older than 30 s; get a new one with POST /v1/events/tickets",
        )
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    // Longer than any of ours: not worth hashing.
    let ours = token.starts_with(TOKEN_PREFIX) || token.starts_with(SESSION_PREFIX);
    (scheme.eq_ignore_ascii_case("bearer") && ours && token.len() < 128).then_some(token)
}

fn no_token() -> Problem {
    Problem::new(
        StatusCode::UNAUTHORIZED,
        "token-missing",
        "需要有效令牌：请配对收银台（baygate pair），或用 baygate token create 建立，并以 Authorization: Bearer 发送",
        "a valid token is needed: pair the till (`baygate pair`) or make one (`baygate token create`) and send it as Authorization: Bearer",
    )
}

fn not_an_admin(uid: u32) -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "not-an-admin",
        format!("用户 {uid} 无权管理网关：请用 root、服务用户，或加入 {ADMIN_GROUP} 组"),
        format!(
            "user {uid} does not administer this gateway: use root, the daemon's user, or join group {ADMIN_GROUP}"
        ),
    )
}

/// Whether a user of the control socket administers the gateway: the daemon's
/// own user, root, or a member of the admin group. Asks the user database: blocking.
#[must_use]
pub(super) fn administers(uid: u32, gid: u32) -> bool {
    if uid == 0 || Uid::from_raw(uid) == Uid::effective() {
        return true;
    }
    let Ok(Some(group)) = Group::from_name(ADMIN_GROUP) else { return false };
    if group.gid == Gid::from_raw(gid) {
        return true;
    }
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.gid == group.gid || group.mem.contains(&user.name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_headers() {
        // (header, token)
        let long = format!("Bearer bg_{}", "x".repeat(200));
        let cases = [
            ("Bearer bg_abc", Some("bg_abc")),
            ("bearer  bg_abc ", Some("bg_abc")),
            ("Basic bg_abc", None),
            ("Bearer abc", None),
            ("Bearer", None),
            ("", None),
            (long.as_str(), None),
        ];
        for (value, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), expected, "{value}");
        }
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (first, hash_of_first) = mint(TOKEN_PREFIX).unwrap();
        let (second, _) = mint(TOKEN_PREFIX).unwrap();
        assert_ne!(first, second);
        assert_eq!(first.len(), TOKEN_PREFIX.len() + 43); // 32 bytes in base64 without padding
        assert_eq!(hash(&first), hash_of_first);
    }
}
