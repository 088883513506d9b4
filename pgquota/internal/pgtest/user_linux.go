package pgtest

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// attributes are those of a server: it ends with this process, and does not run as root, which it refuses to do.
func attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if uid, gid, err := other(); os.Geteuid() == 0 && err == nil {
		attr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	return attr
}

// giveAway makes a directory that of whom the server runs as.
func giveAway(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := other()
	if err != nil {
		return err
	}
	return os.Chown(dir, int(uid), int(gid))
}

// other returns whom a server runs as that root starts.
func other() (uid, gid uint32, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		found, unknown := user.Lookup(name)
		if unknown != nil {
			continue
		}
		u, err1 := strconv.ParseUint(found.Uid, 10, 32)
		g, err2 := strconv.ParseUint(found.Gid, 10, 32)
		return uint32(u), uint32(g), errors.Join(err1, err2)
	}
	return 0, 0, errors.New("there is no user postgres or nobody to run a server as")
}
