//! Files of a volume where others are, or their directories.

use super::Found;
use crate::field::{Fields, Path};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What files are made of: the field, its name in texts, and the fields with the name of an object, as a volume and
/// as part of one.
const MAPPED: [(&str, &str, [&str; 2]); 3] = [
    ("configMap", "ConfigMap", ["name", "name"]),
    ("secret", "Secret", ["secretName", "name"]),
    ("downwardAPI", "DownwardAPI", ["", ""]),
];
/// What makes a file itself, in a part of a volume: the field of the path, and what the file is called.
const FILES: [(&str, &str, &str); 5] = [
    ("serviceAccountToken", "path", "ServiceAccountToken"),
    ("clusterTrustBundle", "path", "ClusterTrustBundle"),
    ("podCertificate", "certificateChainPath", "PodCertificate chain"),
    ("podCertificate", "keyPath", "PodCertificate key"),
    ("podCertificate", "credentialBundlePath", "PodCertificate credential bundle"),
];

/// How many bytes of paths are compared at most with what may be above them: more overlaps are not looked for.
const WORK_MAX: usize = 16 << 20;

/// The overlaps within each volume.
pub fn overlaps(out: &mut Found, spec: &Value, _path: &Path<'_>) {
    let mut work = WORK_MAX;
    for volume in spec.list("volumes") {
        for (field, kind, names) in MAPPED.iter().filter(|(field, ..)| volume.has(field)) {
            let mut files = Files::new(volume, named(kind, volume.at(field), names[0]), &mut work);
            items(volume.at(field)).for_each(|path| files.add(out, path, ""));
        }
        let mut files = Files::new(volume, "Projected".into(), &mut work);
        for source in volume.at("projected").list("sources") {
            files.projected(out, source);
        }
    }
}

fn items(of: &Value) -> impl Iterator<Item = &str> {
    of.list("items").iter().map(|item| item.text("path"))
}

fn named(kind: &str, of: &Value, field: &str) -> String {
    if field.is_empty() { kind.to_owned() } else { format!("{kind} {:?}", of.text(field)) }
}

/// The files of one volume so far.
struct Files<'a> {
    volume: &'a str,
    of: String,
    /// Where they are, with a slash behind; by that, numbers of `shown`.
    places: BTreeMap<String, Vec<usize>>,
    shown: Vec<String>,
    work: &'a mut usize,
}

impl<'a> Files<'a> {
    fn new(volume: &'a Value, of: String, work: &'a mut usize) -> Self {
        Self { volume: volume.text("name"), of, places: BTreeMap::new(), shown: Vec::new(), work }
    }

    /// The files of a projected volume's source.
    fn projected(&mut self, out: &mut Found, source: &Value) {
        if source.as_object().is_none_or(|map| map.values().all(Value::is_null)) {
            let text = format!("volume {:?} (Projected) has no sources provided", self.volume);
            return out.whole(text);
        }
        // a source is one of these, which validation sees to
        for (field, kind, names) in MAPPED {
            let of = source.at(field);
            items(of).for_each(|path| self.add(out, path, &named(kind, of, names[1])));
        }
        for (field, path, called) in FILES.iter().filter(|(field, ..)| source.has(field)) {
            let of = source.at(field);
            match *field {
                "clusterTrustBundle" if of.has("name") => self.add(out, of.text(path), &named(called, of, "name")),
                "clusterTrustBundle" => self.add(out, of.text(path), &named(called, of, "signerName")),
                _ => self.add(out, of.text(path), called),
            }
        }
    }

    fn add(&mut self, out: &mut Found, path: &str, source: &str) {
        let path = path.trim_end_matches('/');
        if path.is_empty() || out.is_enough() {
            return;
        }
        let shown = if source.is_empty() { format!("{path:?}") } else { format!("{path:?} ({source})") };
        let place = format!("{path}/");
        for other in self.meet(&place) {
            let about = format_args!("volume {:?} ({}): overlapping paths", self.volume, self.of);
            out.add(about, format_args!("{shown} with {}", self.shown[other]));
        }
        let here = self.places.entry(place).or_default();
        // the same once more would only say the same once more
        if here.iter().all(|other| self.shown[*other] != shown) {
            here.push(self.shown.len());
            self.shown.push(shown);
        }
    }

    /// The files at a place, below it, and above it, in the order in which they came. What is above is looked for from
    /// neighbour to neighbour: a path may have a million directories.
    fn meet(&mut self, place: &str) -> Vec<usize> {
        let below = self.places.range::<str, _>((Bound::Included(place), Bound::Unbounded));
        let below = below.take_while(|(other, _)| other.starts_with(place));
        let mut found: Vec<usize> = below.flat_map(|(_, files)| files).copied().collect();
        let mut until = Bound::Excluded(place);
        while let Some((near, files)) = self.places.range::<str, _>((Bound::Unbounded, until)).next_back() {
            *self.work = self.work.saturating_sub(place.len());
            if *self.work == 0 {
                break;
            }
            until = match place.starts_with(near.as_str()) {
                true => {
                    found.extend(files);
                    Bound::Excluded(near.as_str())
                }
                false => match common_directory(place, near) {
                    "" => break,
                    directory => Bound::Included(directory),
                },
            };
        }
        found.sort_unstable();
        found
    }
}

/// The longest directory that both places are in, with its slash; empty when there is none.
fn common_directory<'a>(a: &'a str, b: &str) -> &'a str {
    let same = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let slash = a.as_bytes()[..same].iter().rposition(|byte| *byte == b'/');
    slash.map_or("", |at| &a[..=at])
}
