//! The data folder and its disk: what a node has where it runs.

use super::super::words;
use super::Finding;
use crate::store::identity::{self, IDENTITY_FILE, MESH_FILE};
use crate::telemetry::process::DiskRoom;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

const FOLDER: &str = "data folder";
const IDENTITY: &str = "identity";

/// The folder, its owner and the secrets in it.
pub(super) fn folder(folder: &Path) -> Vec<Finding> {
    let shown = folder.display();
    let meta = match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => {
            return vec![Finding::problem(FOLDER, format!("{shown} is no folder"), "name another with --data-dir")];
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let next = "`taskmesh up` makes it, `taskmesh join INVITE` makes it that of a member";
            return vec![Finding::warning(FOLDER, format!("{shown} is not there: no node has run here"), next)];
        }
        Err(e) => return vec![Finding::problem(FOLDER, format!("{shown}: {e}"), "run it as the user of the node")],
    };
    let mine = rustix::process::geteuid().as_raw();
    let own = match (meta.uid() == mine || mine == 0, meta.permissions().mode() & 0o077) {
        (false, _) => Finding::problem(
            FOLDER,
            format!("{shown} belongs to user {}, and this is user {mine}", meta.uid()),
            "run the node, and this, as one user",
        ),
        (true, 0) => Finding::ok(FOLDER, format!("{shown}, for its owner alone")),
        (true, _) => {
            let says = format!("others may look into {shown}, where the mesh's key and the token are");
            Finding::problem(FOLDER, says, format!("chmod 700 {shown}"))
        }
    };
    let secrets = [IDENTITY_FILE, MESH_FILE, "token"].into_iter().filter_map(|name| open_secret(&folder.join(name)));
    std::iter::once(own).chain(secrets).chain([identity(folder)]).collect()
}

/// A secret that others may read.
fn open_secret(path: &Path) -> Option<Finding> {
    let mode = fs::metadata(path).ok()?.permissions().mode();
    let says = format!("others may read {}", path.display());
    (mode & 0o077 != 0).then(|| Finding::problem("secrets", says, format!("chmod 600 {}", path.display())))
}

fn identity(folder: &Path) -> Finding {
    let load = |name: &str| identity::load(&folder.join(name));
    match (load(IDENTITY_FILE), load(MESH_FILE)) {
        (Ok(Some(seed)), Ok(Some(_))) => match crate::net::node_of(&seed) {
            Ok(node) => Finding::ok(IDENTITY, format!("{node}, and the key of a mesh")),
            Err(e) => Finding::problem(IDENTITY, e.to_string(), RESTORE),
        },
        (Ok(None), Ok(_)) | (Ok(_), Ok(None)) => {
            let says = "there are not yet both an identity and the key of a mesh".to_owned();
            Finding::warning(IDENTITY, says, "the first `taskmesh up`, or `taskmesh join INVITE`, makes them")
        }
        (Err(e), _) | (_, Err(e)) => Finding::problem(IDENTITY, e.to_string(), RESTORE),
    }
}

const RESTORE: &str = "bring the file back from a backup; with a new one the node is another node";

/// Room, and how long it takes until something is on the disk.
pub(super) fn disk(folder: &Path) -> Vec<Finding> {
    if !folder.is_dir() {
        return Vec::new();
    }
    let room = match DiskRoom::of(folder) {
        Some(room) => room_of(room),
        None => Finding::unknown(ROOM, "the file system does not say how much room it has"),
    };
    let sync = match measure(folder) {
        Ok(times) => sync_of(times),
        Err(e) => Finding::problem(SYNC, format!("nothing can be written there: {e}"), "make room, or check the mount"),
    };
    vec![room, sync]
}

const ROOM: &str = "disk room";
const SYNC: &str = "disk sync";

pub(super) fn room_of(room: DiskRoom) -> Finding {
    let says = format!("{} of {} free", words::bytes(room.free as f64), words::bytes(room.size as f64));
    match room.free {
        free if free < LEAST => Finding::problem(ROOM, says, "make room now: a node whose disk is full stops"),
        free if free < LITTLE || free < room.size / 50 => {
            Finding::warning(ROOM, says, "make room, or lower mesh.retained_tasks and mesh.retention_s")
        }
        _ => Finding::ok(ROOM, says),
    }
}

/// Less than that and the store may fail with the next large result.
const LEAST: u64 = 128 * 1024 * 1024;
const LITTLE: u64 = 1024 * 1024 * 1024;

fn sync_of(mut times: Vec<Duration>) -> Finding {
    times.sort();
    let (Some(worst), Some(middle)) = (times.last(), times.get(times.len() / 2)) else {
        return Finding::unknown(SYNC, "not measured");
    };
    let ms = |span: &Duration| span.as_secs_f64() * 1_000.0;
    let says = format!("{:.1} ms for 4 KiB, {:.1} ms at worst of {}", ms(middle), ms(worst), times.len());
    let next = "every accepted task waits for it: use a local disk, and none that others keep busy";
    match *middle {
        middle if middle > AWFUL => Finding::problem(SYNC, says, next),
        middle if middle > SLOW => Finding::warning(SYNC, says, next),
        _ => Finding::ok(SYNC, says),
    }
}

const SLOW: Duration = Duration::from_millis(20);
/// A commit that takes as long as a lease lasts costs the node its tasks.
const AWFUL: Duration = Duration::from_millis(500);

/// How long it takes to bring 4 KiB to the disk, again and again, in a file of
/// the folder that goes again.
fn measure(folder: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = tempfile::Builder::new().prefix(".doctor-").tempfile_in(folder)?;
    let began = Instant::now();
    let mut times = Vec::new();
    while times.len() < ROUNDS && began.elapsed() < PATIENCE {
        let one = Instant::now();
        file.write_all(&[0x5a; 4_096])?;
        file.as_file().sync_data()?;
        times.push(one.elapsed());
    }
    Ok(times)
}

const ROUNDS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Verdict;
    use super::*;

    fn verdicts(findings: &[Finding]) -> Vec<(&'static str, Verdict)> {
        findings.iter().map(|f| (f.check, f.verdict)).collect()
    }

    #[test]
    fn a_folder_is_judged_by_who_may_look_into_it() {
        let base = tempfile::tempdir().unwrap();
        let data = base.path().join("data");
        assert_eq!(verdicts(&folder(&data)), [(FOLDER, Verdict::Warning)]);
        for name in [IDENTITY_FILE, MESH_FILE] {
            identity::load_or_create(&data.join(name), || [7; 32]).unwrap();
        }
        assert_eq!(verdicts(&folder(&data)), [(FOLDER, Verdict::Ok), (IDENTITY, Verdict::Ok)]);
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(data.join(MESH_FILE), fs::Permissions::from_mode(0o644)).unwrap();
        let found = folder(&data);
        let wanted = [(FOLDER, Verdict::Problem), ("secrets", Verdict::Problem), (IDENTITY, Verdict::Ok)];
        assert_eq!(verdicts(&found), wanted);
        assert_eq!(found[1].next, Some(format!("chmod 600 {}", data.join(MESH_FILE).display())));
        fs::remove_file(data.join(IDENTITY_FILE)).unwrap();
        fs::write(data.join(IDENTITY_FILE), "no key").unwrap();
        assert_eq!(verdicts(&folder(&data)).last(), Some(&(IDENTITY, Verdict::Problem)));
    }

    #[test]
    fn a_disk_is_judged_by_its_room_and_its_speed() {
        const GIB: u64 = 1 << 30;
        let room = |free, size| room_of(DiskRoom { free, size }).verdict;
        assert_eq!(room(50 * GIB, 100 * GIB), Verdict::Ok);
        assert_eq!([room(GIB / 2, 100 * GIB), room(GIB, 100 * GIB)], [Verdict::Warning; 2]);
        assert_eq!(room(1, 100 * GIB), Verdict::Problem);
        let sync = |ms: [u64; 3]| sync_of(ms.map(Duration::from_millis).to_vec()).verdict;
        assert_eq!(sync([1, 900, 2]), Verdict::Ok);
        assert_eq!(sync([1, 30, 40]), Verdict::Warning);
        assert_eq!(sync([600, 700, 800]), Verdict::Problem);
        assert_eq!(sync_of(Vec::new()).verdict, Verdict::Unknown);
    }

    #[test]
    fn the_disk_is_really_written_to() {
        let base = tempfile::tempdir().unwrap();
        let found = disk(base.path());
        assert_eq!(found.iter().map(|f| f.check).collect::<Vec<_>>(), [ROOM, SYNC]);
        assert!(found[1].says.contains("ms for 4 KiB"), "{found:?}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0, "nothing stays");
    }
}
