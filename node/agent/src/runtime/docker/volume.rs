//! A pod's volumes on the node's disk, or in its memory: `<dir>/pods/<uid>/<volume>`.
//!
//! Files are written beside those that are read and swapped by renaming one link, as Kubernetes does: a container sees all of the old
//! ones or all of the new ones.
//!
//! Invariant: what is secret is written to memory only; nothing outside of the pod's own directory is ever removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags};

use crate::runtime::{File, RuntimeError, Volume, VolumeSource};

/// The link that is swapped.
const DATA: &str = "..data";
/// The most bytes that secrets of one volume take in memory: as large as a secret can be, and its directories.
const SECRET_SIZE: u64 = 2 << 20;

/// Makes a pod's volumes, or brings their files up to date.
pub(super) fn mount(dir: &Path, uid: &str, volumes: &[Volume]) -> Result<BTreeMap<String, String>, RuntimeError> {
    let mut paths = BTreeMap::new();
    for volume in volumes {
        let made = pod_dir(dir, uid).and_then(|pod| make(&pod, volume));
        let path = made.map_err(|error| RuntimeError::Machine {
            what: format!("MountVolume.SetUp failed for volume {:?} ", volume.name),
            because: error.to_string(),
        })?;
        paths.insert(volume.name.clone(), path.to_string_lossy().into_owned());
    }
    Ok(paths)
}

/// Removes a pod's volumes.
pub(super) fn unmount(dir: &Path, uid: &str) -> Result<(), RuntimeError> {
    let clear = || {
        let pod = pod_dir(dir, uid)?;
        for entry in present(fs::read_dir(&pod))?.into_iter().flatten() {
            let path = entry?.path();
            if is_mount(&path)? {
                nix::mount::umount2(&path, MntFlags::MNT_DETACH)?;
            }
        }
        present(fs::remove_dir_all(&pod)).map(drop)
    };
    clear().map_err(|error: io::Error| RuntimeError::Machine {
        what: format!("the volumes of pod {uid} were not removed"),
        because: error.to_string(),
    })
}

/// The uids of pods that have volumes.
pub(super) fn mounted(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let read = || {
        let mut uids = Vec::new();
        for entry in present(fs::read_dir(dir.join("pods")))?.into_iter().flatten() {
            uids.extend(entry?.file_name().into_string().ok());
        }
        Ok(uids)
    };
    read().map_err(|error: io::Error| RuntimeError::Machine {
        what: "the volumes of earlier pods were not found".to_owned(),
        because: error.to_string(),
    })
}

pub(super) fn pod_dir(dir: &Path, uid: &str) -> io::Result<PathBuf> {
    Ok(dir.join("pods").join(component(uid)?))
}

/// A name that stays where it is put.
pub(super) fn component(name: &str) -> io::Result<&str> {
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err(io::Error::other(format!("`{name}` is no name of a directory")));
    }
    Ok(name)
}

/// What is not there is nothing.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn make(pod: &Path, volume: &Volume) -> io::Result<PathBuf> {
    let path = pod.join(component(&volume.name)?);
    match &volume.source {
        VolumeSource::Host { path, kind } => return host(Path::new(path), kind),
        VolumeSource::Empty { memory, size } => {
            directory(&path, *memory, *size, 0o777)?;
        }
        VolumeSource::Files { files, secret } => {
            directory(&path, *secret, secret.then_some(SECRET_SIZE), 0o755)?;
            write(&path, files)?;
        }
    }
    Ok(path)
}

fn directory(path: &Path, memory: bool, size: Option<u64>, mode: u32) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if memory {
        if !is_mount(path)? {
            let size = size.map_or_else(String::new, |size| format!(",size={size}"));
            let options = format!("mode={mode:o}{size}");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?;
        }
    } else if fs::metadata(path)?.permissions().mode() & 0o777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Whether a directory is another file system than the one it is in.
fn is_mount(path: &Path) -> io::Result<bool> {
    let (Some(own), Some(parent)) = (present(fs::symlink_metadata(path))?, path.parent()) else { return Ok(false) };
    Ok(own.is_dir() && own.dev() != fs::metadata(parent)?.dev())
}

/// Writes files so that they appear all at once.
fn write(volume: &Path, files: &BTreeMap<String, File>) -> io::Result<()> {
    let version = format!("..{:08x}", fingerprint(files));
    let current = present(fs::read_link(volume.join(DATA)))?;
    if current.as_deref() == Some(Path::new(&version)) {
        return Ok(());
    }
    let new = volume.join(&version);
    // A version that was cut off in the middle is begun again.
    present(fs::remove_dir_all(&new))?;
    fs::create_dir(&new)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
    for (name, file) in files {
        let path = new.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    let next = volume.join("..data_next");
    present(fs::remove_file(&next))?;
    symlink(&version, &next)?;
    fs::rename(&next, volume.join(DATA))?;

    let names: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for name in &names {
        let link = volume.join(name);
        if present(fs::symlink_metadata(&link))?.is_none() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(volume)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if names.contains(&*name) || *name == *DATA || *name == *version {
            continue;
        }
        if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
    }
    Ok(())
}

fn fingerprint(files: &BTreeMap<String, File>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for (name, file) in files {
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&file.mode.to_le_bytes());
        hasher.update(&file.content.len().to_le_bytes());
        hasher.update(&file.content);
    }
    hasher.finalize()
}

/// A path of the node, if it is what the pod says it is. The kinds are Kubernetes'.
fn host(path: &Path, kind: &str) -> io::Result<PathBuf> {
    let found = present(fs::metadata(path))?;
    let right = match kind {
        "" | "DirectoryOrCreate" if found.is_none() => {
            fs::create_dir_all(path)?;
            true
        }
        "FileOrCreate" if found.is_none() => {
            fs::File::create(path)?;
            true
        }
        "" => true,
        _ => found.is_some_and(|found| match kind {
            "Directory" | "DirectoryOrCreate" => found.is_dir(),
            "File" | "FileOrCreate" => found.is_file(),
            "Socket" => found.file_type().is_socket(),
            "CharDevice" => found.file_type().is_char_device(),
            "BlockDevice" => found.file_type().is_block_device(),
            _ => false,
        }),
    };
    if right {
        Ok(path.to_owned())
    } else {
        Err(io::Error::other(format!("hostPath type check failed: {} is not a {kind}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> VolumeSource {
        let file = |content: &str| File { content: content.to_owned().into(), mode: 0o640 };
        let files = list.iter().map(|(name, content)| ((*name).to_owned(), file(content))).collect();
        VolumeSource::Files { files, secret: false }
    }

    fn mounted_at(dir: &Path, source: VolumeSource) -> PathBuf {
        let volume = Volume { name: "settings".to_owned(), source };
        PathBuf::from(&mount(dir, "uid-1", &[volume]).unwrap()["settings"])
    }

    #[test]
    fn files_change_all_at_once_and_what_is_gone_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = mounted_at(dir.path(), files(&[("a", "1"), ("sub/b", "2")]));
        assert_eq!(fs::read_to_string(path.join("sub/b")).unwrap(), "2");
        assert_eq!(fs::metadata(path.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(path.join(DATA)).unwrap();

        mounted_at(dir.path(), files(&[("a", "one"), ("c", "3")]));
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "one");
        assert_eq!(fs::read_to_string(path.join("c")).unwrap(), "3");
        assert!(!path.join("sub").exists() && !path.join(before).exists());
    }

    #[test]
    fn unchanged_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = mounted_at(dir.path(), files(&[("a", "1")]));
        let before = fs::metadata(path.join("a")).unwrap().ino();
        mounted_at(dir.path(), files(&[("a", "1")]));
        assert_eq!(fs::metadata(path.join("a")).unwrap().ino(), before);
    }

    #[test]
    fn a_pods_volumes_go_with_it_and_a_path_of_the_node_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = dir.path().join("host");
        fs::create_dir(&host).unwrap();
        fs::write(host.join("kept"), "1").unwrap();
        let volumes = [
            Volume { name: "empty".into(), source: VolumeSource::Empty { memory: false, size: None } },
            Volume {
                name: "host".into(),
                source: VolumeSource::Host { path: host.display().to_string(), kind: "Directory".into() },
            },
        ];
        let paths = mount(dir.path(), "uid-1", &volumes).unwrap();
        assert_eq!(fs::metadata(&paths["empty"]).unwrap().permissions().mode() & 0o777, 0o777);
        assert_eq!(mounted(dir.path()).unwrap(), ["uid-1"]);
        unmount(dir.path(), "uid-1").unwrap();
        unmount(dir.path(), "uid-1").unwrap();
        assert!(mounted(dir.path()).unwrap().is_empty());
        assert!(host.join("kept").exists());
    }

    #[test]
    fn a_path_of_the_node_must_be_what_the_pod_says_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let error = host(&dir.path().join("no"), "Directory").unwrap_err();
        assert!(error.to_string().ends_with("no is not a Directory"), "{error}");
        assert!(host(&dir.path().join("made"), "DirectoryOrCreate").unwrap().is_dir());
        assert!(host(&dir.path().join("made"), "Socket").is_err());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for uid in ["", "..", "a/b"] {
            assert!(mount(dir.path(), uid, &[Volume { name: "v".into(), source: files(&[]) }]).is_err());
        }
    }
}
