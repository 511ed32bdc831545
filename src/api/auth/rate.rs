//! How often the bearers of a token may call: a bucket for each block of a
//! token that sets a rate. Whoever holds a token made from that block draws from
//! the same bucket, so a rate can't be had twice by attenuating a token twice.

use crate::ops::{Code, Failure};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use taskmesh_core::Millis;
use taskmesh_core::authority::TokenId;

/// Buckets that are not full. Above this the fullest goes: it is missed least.
const BUCKETS: usize = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

/// The buckets of one node.
#[derive(Default)]
pub(super) struct Rates {
    buckets: Mutex<HashMap<TokenId, Bucket>>,
}

/// A bucket holds the calls of one minute, and fills in one.
struct Bucket {
    rate: f64,
    calls: f64,
    at: Instant,
}

impl Bucket {
    fn calls(&self, now: Instant) -> f64 {
        let filled = now.saturating_duration_since(self.at).as_secs_f64() / MINUTE.as_secs_f64() * self.rate;
        (self.calls + filled).min(self.rate)
    }

    /// The part that is left.
    fn fullness(&self, now: Instant) -> f64 {
        if self.rate > 0.0 { self.calls(now) / self.rate } else { 0.0 }
    }
}

impl Rates {
    /// Takes one call out of each bucket, or none out of any.
    pub(super) fn spend(&self, rates: &[(TokenId, u32)], now: Instant) -> Result<(), Failure> {
        if rates.is_empty() {
            return Ok(());
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let left = |buckets: &HashMap<TokenId, Bucket>, id: &TokenId, rate: f64| {
            buckets.get(id).map_or(rate, |bucket| bucket.calls(now))
        };
        for (id, rate) in rates {
            let calls = left(&buckets, id, f64::from(*rate));
            if calls < 1.0 {
                return Err(empty(*rate, calls));
            }
        }
        for (id, rate) in rates {
            let rate = f64::from(*rate);
            let calls = left(&buckets, id, rate) - 1.0;
            if buckets.len() >= BUCKETS && !buckets.contains_key(id) {
                make_room(&mut buckets, now);
            }
            buckets.insert(*id, Bucket { rate, calls, at: now });
        }
        Ok(())
    }
}

fn make_room(buckets: &mut HashMap<TokenId, Bucket>, now: Instant) {
    buckets.retain(|_, bucket| bucket.fullness(now) < 1.0);
    if buckets.len() < BUCKETS {
        return;
    }
    let fullest = buckets.iter().max_by(|(_, a), (_, b)| a.fullness(now).total_cmp(&b.fullness(now)));
    if let Some(id) = fullest.map(|(id, _)| *id) {
        buckets.remove(&id);
    }
}

fn empty(rate: u32, calls: f64) -> Failure {
    let wait = if rate == 0 { MINUTE } else { MINUTE.mul_f64(((1.0 - calls) / f64::from(rate)).min(1.0)) };
    let error = format!("this token may make {rate} calls a minute on one node; try again later");
    let retry_after = Some(Millis(u64::try_from(wait.as_millis()).unwrap_or(60_000) + 1));
    Failure { retry_after, ..Failure::new(Code::ResourceExhausted, error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TokenId = TokenId([1; 16]);

    #[test]
    fn a_bucket_holds_a_minute_and_fills_in_one() {
        let (rates, start) = (Rates::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(rates.spend(&[(ID, 3)], start), Ok(()));
        }
        let refused = rates.spend(&[(ID, 3)], start).expect_err("empty");
        assert_eq!((refused.code, refused.retry_after), (Code::ResourceExhausted, Some(Millis(20_001))));
        assert!(rates.spend(&[(ID, 3)], start + Duration::from_millis(19_000)).is_err());
        assert_eq!(rates.spend(&[(ID, 3)], start + Duration::from_millis(20_001)), Ok(()));
    }

    #[test]
    fn those_who_share_a_block_share_its_rate() {
        let (rates, now) = (Rates::default(), Instant::now());
        let child = |n| [(ID, 2), (TokenId([n; 16]), 5)];
        assert_eq!((rates.spend(&child(2), now), rates.spend(&child(3), now)), (Ok(()), Ok(())));
        assert!(rates.spend(&child(4), now).is_err());
        assert!(rates.spend(&[(TokenId([9; 16]), 0)], now).is_err(), "no calls at all");
    }

    #[test]
    fn buckets_are_bounded_and_the_fullest_goes() {
        let (rates, now) = (Rates::default(), Instant::now());
        assert_eq!(rates.spend(&[(ID, 1)], now), Ok(()));
        for n in 0..BUCKETS as u64 + 10 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&n.to_be_bytes());
            assert_eq!(rates.spend(&[(TokenId(id), 1_000)], now), Ok(()));
        }
        assert_eq!(rates.buckets.lock().expect("no panic").len(), BUCKETS);
        assert!(rates.spend(&[(ID, 1)], now).is_err(), "an empty bucket stays");
    }
}
