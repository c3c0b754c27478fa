import os

FOLDER = os.environ.get('FOLDER', '/opt/graphite')
SECRET_KEY = 'nothing is kept here'
ALLOWED_HOSTS = ['*']
TIME_ZONE = 'UTC'
CONF_DIR = FOLDER + '/conf'
STORAGE_DIR = FOLDER + '/storage'
WHISPER_DIR = FOLDER + '/storage/whisper'
LOG_DIR = FOLDER + '/storage/log/webapp'
INDEX_FILE = FOLDER + '/storage/index'
STATIC_ROOT = '/usr/share/graphite-web/static'
CARBONLINK_HOSTS = ['127.0.0.1:7002']
DATABASES = {'default': {'NAME': FOLDER + '/graphite.db', 'ENGINE': 'django.db.backends.sqlite3'}}
os.makedirs(LOG_DIR, exist_ok=True)
