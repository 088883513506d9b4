package powercut

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"example.com/quota/torture/harness"
)

// start runs the machine whose power is cut: a process with mounts of its own, so that however it ends its mounts end
// with it, and with them the loop devices and the images, which are in its memory.
func start(ctx context.Context, run *harness.Run) error {
	runtime.LockOSThread() // the machine is killed when the thread ends that started it
	defer runtime.UnlockOSThread()
	cmd, err := harness.Worker(ctx, machineWorker, run.Dir, strconv.FormatUint(run.Seed, 10), strconv.Itoa(run.Cases))
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting a process with mounts of its own: %w", err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		run.Done(1)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit) && exit.ExitCode() == violated:
		return harness.Violated("%s", strings.TrimSpace(said.String()))
	case err != nil:
		return fmt.Errorf("the machine: %w: %s", err, said.String())
	}
	return nil
}

// violated is the exit code of a worker that found a broken promise.
const violated = 1

// A disk is a file system in an image.
type disk struct {
	name    string
	size    int64
	options string
	make    []string
	check   []string

	image, at string
	life      *life // of the state on it
}

// disks are the file systems whose power is cut.
func disks() []*disk {
	makeExt4, checkExt4 := []string{"mkfs.ext4", "-q", "-F"}, []string{"e2fsck", "-f", "-n"}
	return []*disk{
		{name: "ext4", size: 48 << 20, options: "loop", make: makeExt4, check: checkExt4},
		{name: "ext4-noauto_da_alloc", size: 48 << 20, options: "loop,noauto_da_alloc", make: makeExt4, check: checkExt4},
		// The smallest that mkfs.xfs makes.
		{name: "xfs", size: 300 << 20, options: "loop", make: []string{"mkfs.xfs", "-q"}, check: []string{"xfs_repair", "-n"}},
	}
}

// machine cuts the power again and again. It has the directory, the seed and the number of cuts as arguments, and writes
// a line for each cut that was survived.
func machine(args []string) error {
	if len(args) != 3 {
		return errors.New("it takes a directory, a seed and how many cuts")
	}
	seed, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	cuts, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	runtime.LockOSThread() // as in start
	random := rand.New(rand.NewPCG(seed, 4))
	dir := args[0]
	if err := syscall.Mount("powercut", dir, "tmpfs", 0, "mode=700"); err != nil {
		return fmt.Errorf("mounting a file system in memory at %s: %w", dir, err)
	}
	all := disks()
	for cut := range max(cuts, len(all)) {
		d := all[cut%len(all)]
		if d.image == "" {
			if err := d.create(dir); err != nil {
				return err
			}
		}
		if err := d.cycle(random); err != nil {
			if harness.IsViolation(err) {
				return harness.Violated("cut %d, on %s: %v", cut, d.name, err)
			}
			return fmt.Errorf("cut %d, on %s: %w", cut, d.name, err)
		}
		fmt.Println(cut)
	}
	return nil
}

func (d *disk) create(dir string) error {
	d.image, d.at = filepath.Join(dir, d.name+".image"), filepath.Join(dir, d.name)
	if err := os.Mkdir(d.at, 0o700); err != nil {
		return err
	}
	image, err := os.Create(d.image)
	if err != nil {
		return err
	}
	defer image.Close()
	if err := image.Truncate(d.size); err != nil {
		return err
	}
	return command(append(d.make, d.image)...)
}

// cycle runs the load, cuts the power under it and looks at what is left.
func (d *disk) cycle(random *rand.Rand) (err error) {
	if err := d.mount(); err != nil {
		return err
	}
	mounted := true
	defer func() {
		if mounted {
			_ = syscall.Unmount(d.at, syscall.MNT_DETACH) // something else is wrong already; the namespace ends anyway
		}
	}()
	if d.life == nil || random.IntN(5) == 0 {
		// A new directory each time: its making has to survive too.
		d.life = &life{path: filepath.Join(d.at, fmt.Sprintf("run%x", random.Uint32()), "quota_state.json"), ledger: newLedger()}
	}
	crew, err := hire(d.life.path, random)
	if err != nil {
		return err
	}
	cutErr := crew.work(d.life, random, func() error { return cutPower(d.at) })
	if cutErr != nil {
		return cutErr
	}
	// What the cut has left is replayed from the journal here. Nobody may have to help.
	if err := d.unmount(); err != nil {
		return err
	}
	if err := d.mount(); err != nil {
		return harness.Violated("the file system cannot be mounted again: %v", err)
	}
	if err := d.life.examine(); err != nil {
		return err
	}
	mounted = false
	if err := d.unmount(); err != nil {
		return err
	}
	if err := command(append(d.check, d.image)...); err != nil {
		return harness.Violated("the file system is not clean: %v", err)
	}
	return nil
}

func (d *disk) mount() error { return command("mount", "-o", d.options, d.image, d.at) }

func (d *disk) unmount() error { return command("umount", d.at) }

func command(words ...string) error {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// A crew is the workers of one cut.
type crew struct {
	workers []*exec.Cmd
	pipes   []io.ReadCloser
	said    bytes.Buffer
}

// hire starts a worker, or two.
func hire(path string, random *rand.Rand) (*crew, error) {
	c := &crew{}
	workers := 1 + random.IntN(2)
	for worker := range workers {
		callers := 1 + random.IntN(most/workers)
		cmd, err := harness.Worker(context.Background(), loadWorker, path, strconv.FormatUint(random.Uint64(), 10),
			strconv.Itoa(worker*most/workers), strconv.Itoa(callers))
		if err != nil {
			return nil, err
		}
		cmd.Stderr = &c.said
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			c.dismiss()
			return nil, err
		}
		c.workers, c.pipes = append(c.workers, cmd), append(c.pipes, pipe)
	}
	return c, nil
}

// dismiss kills the workers and waits for their end.
func (c *crew) dismiss() {
	for _, worker := range c.workers {
		_ = worker.Process.Kill()
		_ = worker.Wait()
	}
}
