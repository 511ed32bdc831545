//! What holds for whatever is found on a disk. For `crate::fuzzing`.

use super::*;
use taskmesh_core::NodeId;

/// A kind, a version and a body under a right checksum: what is read can be
/// written again and means the same, and one bit that is not as it was written
/// is noticed.
///
/// The bytes are tried as a key, too.
pub fn entry(bytes: &[u8]) {
    key(bytes);
    let [kind, version, body @ ..] = bytes else { return };
    let mut value = sealed(*kind, *version, body);
    match inspect(&value) {
        Ok(envelope) => holds(&envelope),
        Err(flaw) => assert!(Kind::from_byte(*kind).is_none(), "{flaw}"),
    }
    let place = checksum(&value) as usize % (8 * value.len());
    value[place / 8] ^= 1 << (place % 8);
    assert!(matches!(inspect(&value), Err(Flaw::Damaged(_))), "bit {place} of {value:02x?}");
}

/// What a face lets through can be kept.
pub fn spec(spec: &Spec) {
    let kept = Entry::Spec(anything(), Arc::new(spec.clone()));
    let mut value = Vec::new();
    assert_eq!(encode(&kept, &mut value), Ok(()));
    assert_eq!(open(&value, Kind::Spec).and_then(|envelope| decode_spec(&envelope)).as_deref(), Ok(spec));
}

fn sealed(kind: u8, version: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("a fuzzer's input is short");
    let mut value = [&[MAGIC, kind, version, 0, 0, 0, 0][..], &length.to_le_bytes(), body].concat();
    let sum = checksum(&value).to_le_bytes();
    value[3..7].copy_from_slice(&sum);
    value
}

fn holds(envelope: &Envelope<'_>) {
    let mut again = Vec::new();
    match envelope.kind {
        Kind::Seal => {
            let Ok(seal) = decode_seal(envelope) else { return };
            assert_eq!(encode_seal(seal.part, &seal.sums, &mut again), Ok(()));
            assert_eq!(inspect(&again).and_then(|envelope| decode_seal(&envelope)), Ok(seal));
        }
        Kind::Spilled => {
            let Ok((content, bytes)) = decode_spilled(envelope) else { return };
            assert_eq!(encode_spilled(content, bytes, &mut again), Ok(()));
            assert_eq!(inspect(&again).and_then(|envelope| decode_spilled(&envelope)), Ok((content, bytes)));
        }
        kind => {
            let Ok(entry) = read(envelope) else { return };
            assert_eq!(encode(&entry, &mut again), Ok(()));
            assert_eq!(open(&again, kind).and_then(|envelope| read(&envelope)), Ok(entry));
        }
    }
}

/// The entry, under a name where its key has one that its value does not.
fn read(envelope: &Envelope<'_>) -> Result<Entry, Flaw> {
    Ok(match envelope.kind {
        Kind::Spec => Entry::Spec(anything(), decode_spec(envelope)?),
        Kind::Record => {
            let (_, named): (Ballot, Record) = match envelope.version {
                1 => v1::decode::<v1::Slot<'_>>(envelope.body)?.try_into()?,
                2 => v1::decode::<v4::Slot<'_>>(envelope.body)?.try_into()?,
                _ => v1::decode::<v5::Slot<'_>>(envelope.body)?.try_into()?,
            };
            let (pledge, record) = decode_record(envelope, &named.task)?;
            Entry::Record { pledge, record: Box::new(record) }
        }
        Kind::Worker => decode_worker(envelope).map(|(spec, since)| Entry::Worker(spec, since))?,
        Kind::Controls => Entry::Controls(decode_controls(envelope)?),
        Kind::Peer => Entry::Peer(NodeId([1; 32]), decode_peer(envelope)?),
        Kind::Boot => Entry::Boot(decode_boot(envelope)?),
        Kind::Tombstone => Entry::Tombstone(1, decode_tombstone(envelope)?),
        Kind::Pledge => decode_pledge(envelope).map(|(ballot, at)| Entry::Pledge { task: anything(), ballot, at })?,
        Kind::Token => Entry::Token(decode_token(envelope)?),
        Kind::Cached => Entry::Cached(Arc::new(decode_cached(envelope)?)),
        Kind::Forgotten => Entry::Forgotten(decode_forgotten(envelope)?),
        Kind::Spilled | Kind::Seal => unreachable!("these are no entries"),
    })
}

/// What a key names is what stands in it.
fn key(bytes: &[u8]) {
    let Some(name) = name_of(bytes) else { return };
    assert_eq!(name.kind() as u8, bytes[0]);
    assert!(name.task().is_none_or(|task| task.as_str().as_bytes() == &bytes[1..]), "{name}");
}

fn anything() -> TaskId {
    TaskId::new("t").expect("a name")
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    (0..180)
        .map(super::tests::any_entry)
        .filter_map(|entry| {
            let mut value = Vec::new();
            encode(&entry, &mut value).ok()?;
            (value.len() < 8_192).then(|| [&value[1..3], &value[HEADER_BYTES..]].concat())
        })
        .collect()
}
