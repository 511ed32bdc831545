//! The sessions of legacy clients: bounded in number, each of the token that
//! opened it, and shared between the tokens that were issued.

use axum::http::HeaderMap;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use taskmesh_core::authority::TokenId;

/// All of them: about 50 kB each.
pub(super) const SESSIONS: usize = 256;
/// One that is not used for so long is forgotten.
const IDLE: Duration = Duration::from_secs(3_600);
/// When there are too many, one that was not used for so long makes room: its
/// client, if it lives, is told 404 and greets again.
pub(super) const YIELDS: Duration = Duration::from_secs(60);

/// Which there are, and how they are used.
pub(super) struct Sessions {
    manager: Arc<LocalSessionManager>,
    used: Mutex<HashMap<Arc<str>, Used>>,
    /// Requests under way that may open one.
    opening: Counts,
}

/// The use of a session.
struct Used {
    at: Instant,
    by: Option<TokenId>,
    /// The token that was issued, from which its bearer may have made theirs.
    issued: Option<TokenId>,
}

/// Those of which there are none yet.
pub(in crate::api) fn manager() -> LocalSessionManager {
    let mut sessions = LocalSessionManager::default();
    sessions.session_config.keep_alive = Some(IDLE);
    sessions
}

impl Sessions {
    pub(super) fn new(manager: Arc<LocalSessionManager>) -> Sessions {
        Sessions { manager, used: Mutex::default(), opening: Counts::default() }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Arc<str>, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session was opened by whoever has this token. Only ids that the node
    /// made come here: those that clients make up are many.
    pub(super) fn note(&self, headers: &HeaderMap, by: Option<TokenId>, issued: Option<TokenId>) {
        if let Some(id) = named(headers) {
            self.used().insert(id.into(), Used { at: Instant::now(), by, issued });
        }
    }

    /// A session is used.
    pub(super) fn touch(&self, headers: &HeaderMap) {
        let Some(id) = named(headers) else { return };
        if let Some(used) = self.used().get_mut(id) {
            used.at = Instant::now();
        }
    }

    /// Whether the session that is named was opened with another token.
    pub(super) fn is_foreign(&self, headers: &HeaderMap, by: Option<TokenId>) -> bool {
        named(headers).is_some_and(|id| self.used().get(id).is_some_and(|used| used.by != by))
    }

    /// Room for one more of who was issued this token, made if need be by one
    /// that was not used for `yields`.
    pub(super) async fn room(&self, issued: Option<TokenId>, yields: Duration) -> Option<Counted<'_>> {
        // Counted before the sessions are, or two could be given the last place.
        let opening = self.opening.add(issued, SESSIONS)?;
        // Held until one is taken out, or two could be given the place of one.
        let mut live = self.manager.sessions.write().await;
        let yielded = {
            let (mut used, opening_now) = (self.used(), self.opening.all().clone());
            used.retain(|id, _| live.contains_key(id));
            if live.len() + opening_now.values().sum::<usize>() <= SESSIONS {
                return Some(opening);
            }
            yielding(&used, opening_now, issued, yields)?
        };
        let session = live.remove(&yielded)?;
        drop(live);
        // One that can't be closed has ended.
        let _ = session.close().await;
        Some(opening)
    }
}

fn named(headers: &HeaderMap) -> Option<&str> {
    headers.get("mcp-session-id").and_then(|id| id.to_str().ok())
}

/// The session that makes room for one more of this token, which is among those
/// that are being opened: one that was not used for long; else, if another
/// token has more, its one that was not used for longest.
fn yielding(
    used: &HashMap<Arc<str>, Used>,
    opening: HashMap<Option<TokenId>, usize>,
    issued: Option<TokenId>,
    yields: Duration,
) -> Option<Arc<str>> {
    let (id, oldest) = used.iter().min_by_key(|(_, used)| used.at)?;
    if oldest.at.elapsed() >= yields {
        return Some(id.clone());
    }
    let mut counts = opening;
    used.values().for_each(|used| *counts.entry(used.issued).or_default() += 1);
    let own = counts.get(&issued).copied().unwrap_or_default();
    let (most, of) = counts.into_iter().map(|(of, count)| (count, of)).max()?;
    let theirs = used.iter().filter(|(_, used)| used.issued == of);
    let oldest = theirs.min_by_key(|(_, used)| used.at).map(|(id, _)| id.clone());
    oldest.filter(|_| most > own)
}

/// How many of something there are, for each token that was issued.
#[derive(Default)]
pub(super) struct Counts(Mutex<HashMap<Option<TokenId>, usize>>);

/// One of them, until this is dropped.
pub(super) struct Counted<'a> {
    counts: &'a Counts,
    issued: Option<TokenId>,
}

impl Counts {
    fn all(&self) -> MutexGuard<'_, HashMap<Option<TokenId>, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more; `None`: of this token there are `most`.
    pub(super) fn add(&self, issued: Option<TokenId>, most: usize) -> Option<Counted<'_>> {
        let mut counts = self.all();
        if counts.get(&issued).is_some_and(|count| *count >= most) {
            return None;
        }
        *counts.entry(issued).or_default() += 1;
        Some(Counted { counts: self, issued })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut counts = self.counts.all();
        if let Some(count) = counts.get_mut(&self.issued) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.issued);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rmcp::transport::streamable_http_server::session::SessionManager as _;
    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    const ANN: Option<TokenId> = Some(TokenId([1; 16]));
    const BOB: Option<TokenId> = Some(TokenId([2; 16]));

    fn none() -> Sessions {
        Sessions::new(Arc::new(manager()))
    }

    /// A session, alive for as long as its transport.
    async fn open(sessions: &Sessions, issued: Option<TokenId>) -> (HeaderMap, Arc<str>, impl Sized + use<>) {
        let (id, transport) = sessions.manager.create_session().await.expect("a session");
        let mut headers = HeaderMap::new();
        headers.insert("mcp-session-id", id.parse().expect("a header"));
        sessions.note(&headers, issued, issued);
        (headers, id, transport)
    }

    async fn full_of_anns() -> (Sessions, Vec<(HeaderMap, Arc<str>, impl Sized)>) {
        let (sessions, mut all) = (none(), Vec::new());
        for _ in 0..SESSIONS {
            assert!(sessions.room(ANN, YIELDS).await.is_some());
            all.push(open(&sessions, ANN).await);
        }
        (sessions, all)
    }

    #[tokio::test]
    async fn the_session_that_was_not_used_for_longest_makes_room() {
        let (sessions, all) = full_of_anns().await;
        sessions.touch(&all[0].0);
        assert!(sessions.room(ANN, YIELDS).await.is_none(), "all are in use");
        assert!(sessions.room(ANN, Duration::ZERO).await.is_some());
        let left = sessions.manager.sessions.read().await;
        assert_eq!(
            (left.len(), left.contains_key(&all[0].1), left.contains_key(&all[1].1)),
            (SESSIONS - 1, true, false)
        );
    }

    #[tokio::test]
    async fn who_has_most_sessions_makes_room_for_who_has_few() {
        let (sessions, anns) = full_of_anns().await;
        let mut bobs = Vec::new();
        while sessions.room(BOB, YIELDS).await.is_some() {
            bobs.push(open(&sessions, BOB).await);
        }
        assert_eq!(bobs.len(), SESSIONS / 2, "half for each");
        assert!(sessions.room(ANN, YIELDS).await.is_none());
        let left = sessions.manager.sessions.read().await;
        assert_eq!((left.len(), left.contains_key(&anns[0].1)), (SESSIONS, false));
        assert!(left.contains_key(&anns[SESSIONS - 1].1));
    }

    #[tokio::test]
    async fn one_token_has_no_more_than_its_share() {
        let counts = Counts::default();
        let mut shares: Vec<_> = (0..3).map(|_| counts.add(ANN, 3).expect("a share")).collect();
        assert!(counts.add(ANN, 3).is_none() && counts.add(BOB, 3).is_some());
        shares.pop();
        assert!(counts.add(ANN, 3).is_some());
        drop(shares);
        assert!(counts.all().is_empty(), "nothing is kept of who left");
    }

    #[tokio::test]
    async fn requests_that_open_sessions_at_once_get_no_more_than_there_are() {
        let (sessions, mut held) = (none(), Vec::new());
        while let Some(opening) = sessions.room(ANN, Duration::MAX).await {
            held.push(opening);
        }
        assert_eq!(held.len(), SESSIONS);
        held.pop();
        assert!(sessions.room(ANN, Duration::MAX).await.is_some());
    }

    #[tokio::test]
    async fn those_who_come_at_once_each_have_the_place_of_another() {
        let (sessions, _anns) = full_of_anns().await;
        let newcomers = (0..40).map(|_| sessions.room(BOB, YIELDS));
        let let_in = futures::future::join_all(newcomers).await;
        assert!(let_in.iter().all(Option::is_some));
        assert_eq!(sessions.manager.sessions.read().await.len(), SESSIONS - 40);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 8)]
    async fn on_several_threads_there_are_never_more_than_the_bound() {
        let (sessions, callers) = (Arc::new(none()), 32);
        let together = Arc::new(Barrier::new(callers.into()));
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (sessions, together) = (sessions.clone(), together.clone());
            tasks.spawn(async move {
                let (issued, mut held, mut most) = (Some(TokenId([caller; 16])), Vec::new(), 0);
                // Three times as many as there may be, and each has its place.
                for _ in 0..24 {
                    together.wait().await;
                    let _opening = sessions.room(issued, Duration::ZERO).await.expect("a place is made");
                    held.push(open(&sessions, issued).await);
                    most = most.max(sessions.manager.sessions.read().await.len());
                }
                (most, held)
            });
        }
        let most = tasks.join_all().await.iter().map(|(most, _)| *most).max();
        assert_eq!(most, Some(SESSIONS));
    }
}
