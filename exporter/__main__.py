"""`python -m exporter`: the same as `streamgauge export`, without the command line around it."""

from database.settings import SettingsError, exit_bad_settings, read_settings
from exporter.serve import run
from exporter.settings import ExporterSettings

if __name__ == "__main__":
    try:
        run(read_settings(ExporterSettings))
    except SettingsError as error:
        exit_bad_settings(error)
