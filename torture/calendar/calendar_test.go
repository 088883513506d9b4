package calendar

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"example.com/quota/torture/harness"
)

func TestOneZoneHolds(t *testing.T) {
	require.NoError(t, Row().Run(context.Background(), &harness.Run{Seed: 1, Cases: 1, Dir: t.TempDir()}))
}

func daysBetween(t *testing.T, zone string, from, to time.Time) []day {
	t.Helper()
	loc, err := time.LoadLocation(zone)
	require.NoError(t, err)
	return daysOf(changes(loc, from.Unix(), to.Unix()), to.Unix())
}

func starts(days []day) []string {
	var list []string
	for _, one := range days[1:] { // the first is the one under way at the beginning
		date := time.Unix(one.date*daySeconds, 0).UTC().Format("01-02")
		list = append(list, date+" at "+time.Unix(one.start, 0).UTC().Format("01-02 15:04"))
	}
	return list
}

func TestDaysAreCountedAsTheyComeOnTheWall(t *testing.T) {
	for _, c := range []struct {
		name, zone string
		from       time.Time
		wanted     []string
	}{
		{"a day that never was", "Pacific/Apia", time.Date(2011, 12, 29, 9, 0, 0, 0, time.UTC),
			[]string{"12-29 at 12-29 10:00", "12-31 at 12-30 10:00", "01-01 at 12-31 10:00"}},
		{"no midnight", "America/Havana", time.Date(2026, 3, 7, 4, 0, 0, 0, time.UTC),
			[]string{"03-07 at 03-07 05:00", "03-08 at 03-08 05:00", "03-09 at 03-09 04:00"}},
		{"a date that comes twice", "America/St_Johns", time.Date(2010, 11, 6, 2, 0, 0, 0, time.UTC),
			[]string{"11-06 at 11-06 02:30", "11-07 at 11-07 02:30", "11-08 at 11-08 03:30"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.wanted, starts(daysBetween(t, c.zone, c.from, c.from.Add(73*time.Hour)))[:3])
		})
	}
}

func TestMonthsBeginOnTheirLastDayWhereTheyAreTooShort(t *testing.T) {
	from := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	var found []string
	for _, one := range windowsOf(daysBetween(t, "UTC", from, from.AddDate(0, 6, 0)), monthly(30)) {
		found = append(found, time.Unix(one.start, 0).UTC().Format("01-02"))
	}
	require.Equal(t, []string{"01-30", "02-29", "03-30", "04-30", "05-30"}, found)
}
