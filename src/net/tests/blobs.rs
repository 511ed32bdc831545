//! Blobs from node to node.

use super::*;

impl TestNode {
    async fn fetches(&self, hash: BlobHash, bytes: u64, from: NodeId) -> bool {
        let ends = |told: &[NetEvent]| told.iter().filter(|e| matches!(e, NetEvent::Fetched { .. })).count();
        let before = ends(&self.told.borrow());
        self.net.fetch(hash, bytes, from);
        self.sees("the end of a fetch", |told| ends(told) > before).await;
        let told = self.told.borrow();
        matches!(told.iter().rfind(|e| matches!(e, NetEvent::Fetched { .. })),
            Some(NetEvent::Fetched { hash: h, here: true }) if *h == hash)
    }
}

async fn five_mebibytes(listen: &str) {
    let (first, second) = pair(listen).await;
    let content: Vec<u8> = (0..5 * 1024 * 1024 + 17u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (hash, bytes) = (BlobHash::of(&content), content.len() as u64);
    first.stored.lock().unwrap().insert(hash, content.clone());
    assert!(second.fetches(hash, bytes, first.id()).await);
    assert!(second.stored.lock().unwrap()[&hash] == content);
    assert!(second.net.counters().bytes_received >= bytes);
    let empty = BlobHash::of(&[]);
    assert!(second.fetches(empty, 0, first.id()).await);
    // Not there, of another size, too large, of another node.
    assert!(!second.fetches(BlobHash([1; 32]), 100, first.id()).await);
    assert!(!second.fetches(hash, bytes + 1, first.id()).await);
    assert!(!second.fetches(hash, u64::MAX, first.id()).await);
    assert!(!second.fetches(hash, bytes, id_of(9)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_5_mib_arrives_over_tcp() {
    five_mebibytes(TCP).await;
}

#[cfg(feature = "quic")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_of_5_mib_arrives_over_quic() {
    five_mebibytes(QUIC).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_blobs_at_once_all_arrive() {
    let (first, second) = pair(TCP).await;
    let blobs: Vec<_> = (0..40u8).map(|n| vec![n; 100_000 + usize::from(n)]).collect();
    for content in &blobs {
        first.stored.lock().unwrap().insert(BlobHash::of(content), content.clone());
        second.net.fetch(BlobHash::of(content), content.len() as u64, first.id());
    }
    second
        .sees("all fetched", |told| {
            told.iter().filter(|e| matches!(e, NetEvent::Fetched { here: true, .. })).count() == blobs.len()
        })
        .await;
    assert_eq!(*second.stored.lock().unwrap(), *first.stored.lock().unwrap());
}
