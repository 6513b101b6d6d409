//! Two faults in a row: the page cache shows the next process what the disk does not have.

use super::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::spool::segment::SealError;

fn open(disk: &FaultyDisk) -> Option<(Spool, Vec<SealedSegment>)> {
    let config = SpoolConfig { dir: "/disk/spool".into(), ..config(Path::new("/")) };
    Spool::open_on(Arc::new(disk.clone()), config).ok().map(|(spool, recovered)| (spool, recovered.segments))
}

#[test]
fn what_is_sent_under_a_token_has_its_seal_on_the_disk() {
    let mut seals = 0;
    for seed in 0..40 {
        for nth in 1..6 {
            let mut disk = FaultyDisk::new(seed);
            let (mut spool, _) = open(&disk).unwrap();
            let segment = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
            segment.sync().unwrap();
            disk.plan(nth, Fault::Fails);
            let Err(failure) = segment.seal(&mut spool.keys) else { continue };
            let (segment, SealError::Sync(_)) = *failure else { continue };
            drop((segment, spool));
            disk.restart(End::Killed);
            let (spool, mut segments) = open(&disk).unwrap();
            let token = segments[0].token();
            segments[0].begin_attempt("window", 1).unwrap();
            drop((spool, segments));
            disk.restart(End::PowerLost);
            let (_spool, segments) = open(&disk).unwrap();
            assert_eq!(segments.iter().map(SealedSegment::token).collect::<Vec<_>>(), [token], "seed {seed}");
            seals += 1;
        }
    }
    assert!(seals > 0, "no sync failed");
}
