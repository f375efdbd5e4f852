"""The words of the connections page in Korean."""

from broker.wording.catalogue import (
    ConfirmationWords,
    ConnectionsWords,
    PageText,
    StatusWords,
)
from broker.wording.times import TimeWords

_GET_LINK = "이용하던 서비스로 돌아가서 연결 관리를 다시 열어 주세요."
_AT_GOOGLE = (
    "이 계정을 쓰는 다른 연결이 없으면 Google 계정에서도 이 앱의 액세스 권한이 함께 해제돼요."
)

KOREAN = ConnectionsWords(
    language="ko",
    site="Google 연결 관리",
    reference="문의 번호",
    skip="본문으로 건너뛰기",
    title="내 Google 연결",
    whose="{service} 사용자 {user}",
    not_you="본인이 아니라면 아무것도 바꾸지 말고 “{done}” 버튼을 눌러 주세요.",
    nothing_title="연결된 계정이 없어요",
    nothing_advice="{service}에서 Google 계정을 연결하면 여기에 표시돼요.",
    withdrawn_title="최근에 해제한 연결",
    statuses={
        "active": StatusWords("연결됨"),
        "reauthorization_required": StatusWords(
            "다시 연결 필요",
            "Google이 이 연결을 더 이상 받아들이지 않아요. 비밀번호가 바뀌었거나 Google "
            "계정에서 연결이 해제됐을 수 있어요.",
        ),
        "pending_confirmation": StatusWords(
            "확인 대기 중",
            "{service}에서 이 연결을 아직 확인하지 않았어요. 확인될 때까지는 어떤 서비스도 쓸 수 "
            "없어요.",
        ),
        "revoked": StatusWords("해제됨"),
    },
    from_elsewhere="다시 연결하려면 {service}(으)로 돌아가 주세요.",
    rights="허용한 권한",
    more_rights="{count}개 더 보기",
    connected_since="연결한 날",
    allowed_on="허용한 날",
    withdrawn_on="해제한 날",
    last_used="마지막 사용",
    used_by="{service}에서",
    never_used="아직 없음",
    withdraw="연결 해제",
    withdraw_named="{email} 연결 해제",
    connect_again="다시 연결",
    connect_again_named="{email} 다시 연결",
    confirmation=ConfirmationWords(
        title="연결을 해제할까요?",
        lead="{service}에서도, 이 Google 계정을 쓰던 다른 모든 서비스에서도 더 이상 이 계정을 쓸 "
        "수 없어요.",
        points=(
            f"해제하는 즉시 서비스에서 이 계정에 접근할 수 없게 돼요. {_AT_GOOGLE}",
            "이전에 계정에서 복사해 간 데이터까지 삭제되지는 않아요.",
            "언제든지 다시 연결할 수 있어요.",
        ),
        keep="그대로 두기",
    ),
    unconfirmed=ConfirmationWords(
        title="연결을 해제할까요?",
        lead="{service}에서 요청했지만 아직 확인하지 않아서, 지금은 어떤 서비스도 쓸 수 없어요.",
        points=(
            f"해제한 뒤에는 확인할 수 없어요. {_AT_GOOGLE}",
            "언제든지 다시 연결할 수 있어요.",
        ),
        keep="그대로 두기",
    ),
    done="닫기",
    done_advice="이 페이지에서 로그아웃돼요. 15분이 지나면 자동으로 로그아웃되지만, 화면의 내용은 "
    "닫을 때까지 남아 있어요.",
    back="{service}(으)로 돌아가기",
    open_again="내 연결 보기",
    google="내 Google 계정에 액세스할 수 있는 모든 앱은 Google 계정의 다음 메뉴에서 볼 수 있어요:",
    google_link="서드 파티 앱 및 서비스",
    times=TimeWords(
        under_a_minute="방금",
        minutes=("{count}분 전", "{count}분 전"),
        hours=("{count}시간 전", "{count}시간 전"),
        days=("{count}일 전", "{count}일 전"),
        date="{year}년 {month} {day}일",
        months=(
            "1월", "2월", "3월", "4월", "5월", "6월",
            "7월", "8월", "9월", "10월", "11월", "12월",
        ),
    ),
    notices={
        "withdrawn": "{email} 연결을 해제했어요.",
        "already_withdrawn": "{email} 연결은 이미 해제되어 있었어요.",
        "connected": "{email} 계정을 다시 연결했어요.",
        "not_connected": "{email} 계정을 다시 연결하지 못했어요. 바뀐 것은 없어요.",
        "cannot_connect": "{email} 계정은 여기에서 연결할 수 없어요. {service}에서 연결해 주세요.",
    },
    nameless_notices={
        "withdrawn": "확인되지 않은 연결을 해제했어요. 어떤 서비스도 쓸 수 없어요.",
        "already_withdrawn": "이미 해제된 연결이에요. 어떤 서비스도 쓸 수 없어요.",
        "cannot_connect": "이 계정은 여기에서 연결할 수 없어요. {service}에서 연결해 주세요.",
    },
    messages={
        "link_not_ours": PageText(
            "이 링크는 쓸 수 없어요",
            "링크가 잘렸거나 바뀌었어요.",
            f"복사한 링크라면 전체를 복사했는지 확인해 주세요. {_GET_LINK}",
        ),
        "link_expired": PageText(
            "링크가 만료됐어요",
            "안전을 위해 이런 링크는 몇 분 동안만 쓸 수 있어요.",
            _GET_LINK,
        ),
        "link_used": PageText(
            "이미 열린 링크예요",
            "안전을 위해 링크마다 한 브라우저에서 한 번만 연결 관리를 열 수 있어요.",
            f"직접 열었다면 그 브라우저에서 계속해 주세요. {_GET_LINK}",
        ),
        "link_withdrawn": PageText(
            "더 이상 쓸 수 없는 링크예요",
            "이 링크를 만든 서비스의 권한이 바뀌었어요.",
            _GET_LINK,
        ),
        "no_visit": PageText(
            "로그인되어 있지 않아요",
            "연결 관리는 이용 중인 서비스에서 받은 링크로, 쿠키를 허용하는 브라우저에서만 열려요.",
            f"이 사이트의 쿠키를 허용해 주세요. {_GET_LINK}",
        ),
        "visit_over": PageText(
            "자동으로 로그아웃됐어요",
            "안전을 위해 연결 관리는 처음 연 브라우저에서 15분 동안만 열려 있어요.",
            _GET_LINK,
        ),
        "form_not_ours": PageText(
            "본인이 진행한 요청인지 확인하지 못했어요",
            "내 연결 관리 페이지에서 보낸 요청이 아니거나, 이미 닫힌 페이지에서 보낸 "
            "요청이에요. 바뀐 것은 없어요.",
            "내 연결을 다시 열어서 한 번 더 시도해 주세요.",
        ),
        "malformed": PageText(
            "요청을 읽을 수 없어요",
            "내용의 일부가 너무 길거나, 빠졌거나, 두\N{NO-BREAK SPACE}번 들어 있어요. 바뀐 것은 "
            "없어요.",
            _GET_LINK,
        ),
        "closed": PageText(
            "로그아웃했어요",
            "이제 이 브라우저에서는 연결을 보거나 바꿀 수 없어요.",
            "이 페이지는 닫아도 돼요.",
        ),
    },
)  # fmt: skip
